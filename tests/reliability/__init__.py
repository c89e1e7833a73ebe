"""Load, kills, bad disks, hostile inputs and artifacts; `make soak` runs their long form."""

from hypothesis import HealthCheck, Phase, settings

THOROUGH = settings(
    derandomize=True, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
"""The same examples each time; the first that fails is told as it is."""
