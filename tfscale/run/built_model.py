"""What is settled once a run's model is built and before its first step.

Owns what the plan could not know of it, what the run's folder keeps of it, and the rehearsal of its export. Refuses to
train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfscale.run.session import Session


def suit_plan(session: Session) -> None:
    """Takes back what the plan decided and this model doesn't support.

    Raises:
        UsageError: the user forced it.
    """
    from tfscale.engine.compilation import without_xla_where_needed

    suited = without_xla_where_needed(session.plan, session.state.model, forced=session.config.plan.xla)
    if suited.xla != session.plan.xla:
        session.say(f"plan: xla off: {suited.reasons['xla']}")
        session.plan = suited
        session.run_dir.write_json("plan.json", suited.to_dict())


def keep_model(session: Session) -> None:
    """What a model that was given as an object says of itself, so that it can be evaluated without its program."""
    from tfscale.keras_task.given_model import GivenModel

    run_dir = session.run_dir
    if isinstance(session.task, GivenModel) and run_dir.writes and run_dir.read_json("model.json") is None:
        from tfscale.keras_task.kept import Indescribable, described

        try:
            run_dir.write_text("model.json", described(session.state.model))
        except Indescribable as why:
            session.say(f"the run's folder can't hold the model, so evaluate and predict will need tfscale.fit: {why}")


def rehearse(session: Session) -> None:
    """What can't be exported at the end is refused before the first step; a resumed run has been there.

    Raises:
        UsageError: it can't be.
    """
    if session.config.export.at_end and not any(session.run_dir.checkpoints.glob("*")):
        from tfscale.export.run_export import rehearse_export

        if notice := rehearse_export(session.task, session.state, session.config.data):
            session.say(notice)
