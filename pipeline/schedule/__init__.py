"""`classify schedule`: what cron, systemd or Kubernetes needs to run a config every day: printed, not installed."""

from __future__ import annotations

from datetime import time
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schedule.daily_run import missing_files, read_daily_run
from pipeline.schedule.kubernetes import render_kubernetes
from pipeline.schedule.render import Printed, render_cron, render_systemd

__all__ = ["Printed", "Scheduler", "schedule"]

Scheduler = Literal["cron", "systemd", "kubernetes"]


def schedule(
    config: str, at: time, scheduler: Scheduler, *, image: str | None = None, timezone: str | None = None
) -> Printed:
    """Return what `scheduler` needs to run the file `config` every day at `at`.

    `image`, a container image, and `timezone`, an IANA name, are for Kubernetes only.

    Raises:
        ConfigError: the config is wrong or can't be run by a scheduler, or a value can't be written down safely.
    """
    run = read_daily_run(config, at)
    if scheduler == "kubernetes":
        return render_kubernetes(run, image=image, timezone=timezone)
    for flag, value in (("--image", image), ("--timezone", timezone)):
        if value is not None:
            raise ConfigError(f"{flag} {value}: is for --as kubernetes; {scheduler} runs on this machine, in its time")
    printed = render_cron(run) if scheduler == "cron" else render_systemd(run)
    printed.notices.extend(missing_files(run.config))
    return printed
