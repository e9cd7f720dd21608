"""The objects of Kubernetes as YAML, without a library: strings are quoted, the config stands there as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# The first rule that fits decides. A container that ended with 0 fits none.
CRON_JOB = """\
apiVersion: batch/v1
kind: CronJob
metadata:
  name: {name}
spec:
  schedule: "{minute} {hour} * * *"
  timeZone: {zone}
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: {length_s}
  successfulJobsHistoryLimit: 3
  failedJobsHistoryLimit: 3
  jobTemplate:
    spec:
      # The waits between two pods grow from 10 s to 6 min: so many retries fit into the night.
      backoffLimit: {retries}
      activeDeadlineSeconds: {longest_s}
      podFailurePolicy:
        rules:
          # Where nodes are drained or preempted, let the cluster replace the pod that it took away itself:
          # - action: Ignore
          #   onPodConditions:
          #     - type: DisruptionTarget
          #       status: "True"
          - action: FailJob
            onExitCodes:
              containerName: classify
              operator: NotIn
              values: [75]
          - action: Count
            onExitCodes:
              containerName: classify
              operator: In
              values: [75]
      template:
        metadata:
          labels:
            job: {name}
        spec:
          restartPolicy: Never
          containers:
            - name: classify
              image: {image}
              command: [{command}]
              env:
                - name: TZ  # run.deadline is local time; the image must know the zone (tzdata)
                  value: {zone}
              envFrom:
                - secretRef:
                    name: {name}
                    optional: true
              volumeMounts:
{mounts}
          volumes:
            - name: config
              configMap:
                name: {name}"""
CLAIM = """\
            # Make this claim, or name yours: it holds input, output and checkpoint, and outlives the pod.
            - name: files
              persistentVolumeClaim:
                claimName: {name}"""


@dataclass(frozen=True, slots=True)
class Mount:
    """What the container sees at `path`: `sub` of a volume ("config" or "files"), or all of it if that is empty."""

    volume: str
    path: str
    sub: str = ""


def config_map(name: str, texts: dict[str, str]) -> list[str]:
    """A ConfigMap of some files, key -> content."""
    lines = ["apiVersion: v1", "kind: ConfigMap", "metadata:", f"  name: {name}", "data:"]
    for key, text in texts.items():
        lines += _block(key, text)
    return lines


def cron_job(
    *, name: str, zone: str, image: str, command: Sequence[str], mounts: Sequence[Mount], **numbers: int
) -> list[str]:
    """A CronJob that tries 75 again and nothing else; `numbers` are those of `CRON_JOB`."""
    # $(NAME) in a command is a variable to Kubernetes, $$(NAME) is not.
    words = (_scalar(word.replace("$(", "$$(")) for word in command)
    text = CRON_JOB.format(
        name=name,
        zone=_scalar(zone),
        image=_scalar(image),
        command=", ".join(words),
        mounts="\n".join(line for mount in mounts for line in _mount(mount)),
        **numbers,
    )
    claim = any(mount.volume == "files" for mount in mounts)
    return [*text.splitlines(), *(CLAIM.format(name=name).splitlines() if claim else [])]


def _mount(mount: Mount) -> list[str]:
    lines = [f"                - name: {mount.volume}", f"                  mountPath: {_scalar(mount.path)}"]
    if mount.sub:
        lines.append(f"                  subPath: {_scalar(mount.sub)}")
    if mount.volume == "config":
        lines.append("                  readOnly: true")
    return lines


def _block(key: str, text: str) -> list[str]:
    """A member of a mapping: the text as it is, or quoted if it has characters that YAML would read otherwise."""
    lines = text.removesuffix("\n").split("\n")
    if all(map(_is_plain, lines)):
        return [f"  {key}: |2+", *(f"    {line}" for line in lines)]
    return [f"  {key}: {_scalar(text)}"]


def _scalar(text: str) -> str:
    """A quoted string of YAML."""
    return '"' + "".join(c if _is_plain(c) and c not in '"\\' else f"\\U{ord(c):08x}" for c in text) + '"'


def _is_plain(text: str) -> bool:
    """Whether YAML takes it as it is: nothing that it forbids, nothing that it takes for a line break."""
    return all(c.isprintable() or c == "\t" for c in text)
