"""`classify schedule`: what a scheduler needs to run a config every night, as text that can be installed as it is."""

from __future__ import annotations

from datetime import time
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schedule import cron, kubernetes, systemd
from pipeline.schedule.night import Printed, plan

__all__ = ["Printed", "schedule"]

Scheduler = Literal["cron", "systemd", "kubernetes"]


def schedule(
    config: str, at: time, scheduler: Scheduler, *, image: str | None = None, timezone: str | None = None
) -> Printed:
    """What `scheduler` needs to run the file `config` every day at `at`. `image`, `timezone`: of Kubernetes alone.

    Raises:
        ConfigError: the config is wrong, or can't be run unattended, or has a path that can't be written down safely.
    """
    night = plan(config, at)
    if scheduler == "kubernetes":
        return kubernetes.printed(night, image=image, timezone=timezone)
    for flag, value in (("--image", image), ("--timezone", timezone)):
        if value is not None:
            raise ConfigError(f"{flag} {value}: is for --as kubernetes; {scheduler} runs on this machine, in its time")
    return cron.printed(night) if scheduler == "cron" else systemd.printed(night)
