"""Print what a distribution requires, less its extras and the names given: `requirements_of.py DIST [SKIP ...]`."""

import sys
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

dist, *skip = sys.argv[1:]
for line in requires(dist) or []:
    requirement = Requirement(line)
    marker = requirement.marker
    if "extra ==" in line or (marker and not marker.evaluate()) or requirement.name in skip:
        continue
    requirement.marker = None
    print(requirement)
