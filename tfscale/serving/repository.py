"""The models of a server, each in its newest version, and how a newer one takes an older one's place.

Owns loading, warming up and watching. Refuses to know HTTP. A version that can't be loaded or doesn't answer changes
nothing: the one before it serves on, and its status says what is wrong.

    models = Repository(places, Limits(), every=2.0)
    await models.load()
    batches = models.batches("resnet")              # raises Refusal (404) for another name
    await models.watch(stop)
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tfscale.errors import DataMissing, TfscaleError, UsageError, first_line, nearest
from tfscale.serving.brought_place import BroughtPlace
from tfscale.serving.model_kinds import load_model
from tfscale.serving.model_place import ModelPlace, Version
from tfscale.serving.refusal import bad_request, not_found
from tfscale.serving.registry_place import artifact_model, registered_model
from tfscale.serving.request_batches import Batches, Limits
from tfscale.serving.store_place import is_url, stored_model
from tfscale.serving.text_writer import TextWriter
from tfscale.tracking.model_address import Stores, is_artifact, parse_address

_log = logging.getLogger(__name__)
Seen = Callable[[str, int, float], None]
Place = ModelPlace | BroughtPlace


def place_of(model: str | Path, name: str | None, stores: Stores, *, every: float | None) -> Place:
    """Where a model lies: in a folder, in a registry, among MLflow's artifacts, or in a store.

    Raises as `ModelPlace.of`, `registered_model` and `stored_model`.

    Args:
        every: seconds between two looks for another version; None: it stays as it is.
    """
    if address := parse_address(str(model)):
        return registered_model(address, name, stores, every=every)
    if is_artifact(model):
        return artifact_model(str(model), name, stores)
    if is_url(str(model)):
        return stored_model(str(model), name, every=every)
    return ModelPlace.of(model, name)


@dataclass
class _Model:
    """Attributes:
    failed: the versions that are there and couldn't be loaded, each with why.
    is_gone: whether no version was there at the last look.
    """

    place: Place
    batches: Batches
    writer: TextWriter | None = None  # where it is a language model's
    failed: dict[Version, str] = field(default_factory=dict)
    drains: set[asyncio.Task] = field(default_factory=set)
    is_gone: bool = False


class Repository:
    """Of one process.

    Args:
        every: seconds between two looks.
        seen: is told a model's name, and the size and the seconds of each of its batches.
        pickles: names of the models whose files may run their author's code when they are read.

    Raises:
        UsageError: one of these names is no model's.
    """

    def __init__(
        self,
        places: Sequence[Place],
        limits: Limits,
        *,
        every: float = 2.0,
        seen: Seen | None = None,
        pickles: Collection[str] = (),
    ):
        names = [place.name for place in places]
        if unknown := sorted(set(pickles) - set(names)):
            raise UsageError(
                f"no model is served as {', '.join(unknown)}{nearest(unknown[0], names)}",
                where="serve.pickles",
                fix=f"they are {', '.join(names)}",
            )
        self._pickles = frozenset(pickles)
        self._places, self._limits, self._every = list(places), limits, every
        self._seen = seen or (lambda name, rows, seconds: None)
        self._models: dict[str, _Model] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading: Future | None = None  # a task that waits for it may end before it does

    async def load(self) -> None:
        """Loads and warms up every model.

        Raises:
            DataMissing, DataCorrupt, UsageError: one of them can't be.
        """
        for place in self._places:
            self._models[place.name] = await self._first(place)
        _keep_out_of_collections()

    async def _first(self, place: Place) -> _Model:
        """The newest version that can be loaded."""
        place.check()  # which says what is missing
        failed: dict[Version, Exception] = {}
        while version := next((one for one in place.versions() if one not in failed), None):
            try:
                batches = await self._made(place.name, version)
            except Exception as error:
                failed[version] = error
                await self._pass_over(place, version)
                continue
            for broken, why in failed.items():
                self._tell_broken(place.name, broken, why, serving=version)
            told = {broken: _why(why) for broken, why in failed.items()}
            return _Model(place, batches, await _writer_of(place.name, version), told)
        raise next(iter(failed.values()), DataMissing(f"{place.name} is gone", where="model", fix="put it back"))

    async def _pass_over(self, place: Place, version: Version) -> None:
        """By a thread, since what is next may have to be brought here first."""
        self._loading = self._thread.submit(place.pass_over, version)
        await asyncio.wrap_future(self._loading)

    def _tell_broken(self, name: str, version: Version, error: Exception, *, serving: Version) -> None:
        why = error.what if isinstance(error, TfscaleError) else first_line(error)
        _log.error(f"version {version.number} of {name} isn't served: {why}; version {serving.number} serves on")

    async def _made(self, name: str, version: Version) -> Batches:
        self._loading = self._thread.submit(load_model, version, name, self._pickles)
        model = await asyncio.wrap_future(self._loading)
        batches = Batches(model, self._limits, seen=lambda rows, seconds: self._seen(name, rows, seconds))
        times = await batches.warm_up()
        told = ", ".join(f"{size}: {1000 * seconds:.1f} ms" for size, seconds in times.items())
        _log.info(f"{name}, version {version.number}, is loaded from {version.folder}" + f"; {told}" * bool(told))
        return batches

    @property
    def is_at_work(self) -> bool:
        """Whether a model is being loaded, or computes."""
        loads = self._loading is not None and not self._loading.done()
        return loads or any(
            model.batches.is_at_work or (model.writer is not None and model.writer.is_at_work)
            for model in self._models.values()
        )

    @property
    def names(self) -> list[str]:
        return list(self._models)

    def batches(self, name: str, version: str | None = None) -> Batches:
        """Raises Refusal (404): there is no such model, or another version of it serves."""
        model = self._models.get(name)
        if model is None:
            raise not_found(f"there is no model {name[:200]!r}; {', '.join(self._models)} are served")
        own = model.batches.model.version.number
        if version is not None and version != str(own):
            raise not_found(f"{name} is served in version {own}, and not in {version[:50]}")
        return model.batches

    def writer(self, name: str, version: str | None = None) -> tuple[TextWriter, int]:
        """What writes texts, and its version; raises Refusal: as `batches`, or the model writes none (400)."""
        number = self.batches(name, version).model.version.number
        writer = self._models[name].writer
        if writer is None:
            raise bad_request(f"{name} writes no texts: that is done by the run of a causal language model")
        return writer, number

    @property
    def writing(self) -> frozenset[str]:
        """The names of those that write texts."""
        return frozenset(name for name, model in self._models.items() if model.writer is not None)

    def status(self, name: str) -> dict[int, str]:
        """By version what is wrong with it, "" for the one that serves."""
        own = self.batches(name).model.version.number
        failed = {version.number: why for version, why in self._models[name].failed.items()}
        return {**dict(sorted(failed.items())), own: ""}

    async def watch(self, stopped: asyncio.Event) -> None:
        """Looks for newer versions until it is stopped."""
        while not stopped.is_set():
            for model in self._models.values():
                await self._look(model)
            try:
                await asyncio.wait_for(stopped.wait(), self._every)
            except TimeoutError:
                continue

    async def _look(self, model: _Model) -> None:
        name, current = model.place.name, model.batches.model.version
        try:
            versions = model.place.versions()
        except (OSError, TfscaleError) as error:  # the folder changes under our eyes
            _log.warning(f"{name}: {first_line(error)}")
            return
        if not versions and not model.is_gone:
            _log.warning(f"{name}: no version is there any more; version {current.number} serves on from memory")
        model.is_gone = not versions
        # Others are gone, or something else by now
        model.failed = {version: why for version, why in model.failed.items() if version in versions}
        for version in versions:
            if version == current:
                return
            if version in model.failed:
                continue
            try:
                batches = await self._made(name, version)
                writer = await _writer_of(name, version)
                break
            except Exception as error:  # whatever TensorFlow raises; the version before it serves on
                self._tell_broken(name, version, error, serving=current)
                model.failed[version] = _why(error)
                await self._pass_over(model.place, version)
                return
        else:
            return
        old = (model.batches, model.writer)
        model.batches, model.writer = batches, writer
        draining = asyncio.create_task(_ended(*old))
        model.drains.add(draining)
        draining.add_done_callback(model.drains.discard)

    def close(self) -> None:
        """Gives back what the places hold, and what writes texts."""
        for model in self._models.values():
            if model.writer is not None:
                model.writer.close()
        for place in self._places:
            place.close()

    async def drained(self) -> None:
        """Waits for all batches that were begun."""
        for model in self._models.values():
            await model.batches.drained()


def _why(error: Exception) -> str:
    """For those who ask: what, and not where."""
    return (
        error.what.partition(":")[0]
        if isinstance(error, TfscaleError)
        else "it can't be used; the server's log says why"
    )


async def _writer_of(name: str, version: Version) -> TextWriter | None:
    """Of an exported run of a causal language model; None of all others, and where the run itself isn't there."""
    if "next_token" not in (version.about.get("outputs") or {}):
        return None
    run_dir = version.folder.parents[1]
    if not (run_dir / "checkpoints").is_dir():
        _log.info(f"{name} writes no texts: {version.folder} isn't in the folder of its run")
        return None
    try:
        return await TextWriter.open(run_dir, step=version.number)
    except Exception as error:  # a run has many parts; its export is served without it
        why = error.what if isinstance(error, TfscaleError) else first_line(error)
        _log.warning(f"{name} writes no texts: {run_dir}: {why}")
        return None


async def _ended(batches: Batches, writer: TextWriter | None) -> None:
    """Waits for what an older version has begun, and frees its memory."""
    await batches.drained()
    if writer is not None:
        await writer.ended()
    del batches, writer
    _keep_out_of_collections()


def _keep_out_of_collections() -> None:
    """What there is now is collected once, and left out of Python's later collections: one of them would walk through
    all of TensorFlow's objects, and requests wait for some tenths of a second meanwhile."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
