"""What people should know of a kind of job when they render one: what its controller does that no manifest can change.

Refuses to know manifests.
"""

from __future__ import annotations

from tfscale.k8s.spec import Job

_KINDS = {
    "tfjob": "one evicted, drained or deleted pod ends a TFJob for good, by its operator's own rule; applied again it"
    " resumes. On nodes that are preempted take job=jobset",
    "job": "Kubernetes makes an evicted pod of an Indexed Job anew ever later (after 23, 40, 84, 164 s), and a drain"
    " waits for it; job=jobset starts again at once",
}
PAGES = "docs/deploy"


def notes(job: Job) -> list[str]:
    """One sentence each."""
    spec = job.spec
    found = [_KINDS[spec.kind]] if spec.kind in _KINDS else []
    if spec.data_workers and spec.kind in ("tfjob", "job"):
        found.append(
            "the data workers are Deployments, which run on when the training has ended: kubectl delete -f removes"
            " them, and --apply with job.ttl lets them go with the job"
        )
    if spec.data_workers and not spec.data_claim:
        found.append(
            "data workers open the data themselves: without job.data_claim they see what the image holds alone"
        )
    if job.code and spec.kind != "slurm":
        found.append(f"the image must hold {', '.join(job.code)}: see {PAGES}/your-code.md")
    if job.files.texts and job.arguments[:1] == ("run",):
        found.append(
            f"the pods have {', '.join(job.files.texts)}; what the script reads besides must lie in the image, in"
            " job.data_claim (/work/data) or where it works, in the job's folder on job.run_claim"
        )
    if spec.kind == "runtime" and not spec.run_claim:
        found.append("without job.run_claim a run is gone with its pod: TrainJobs of this runtime must give run.store")
    return found
