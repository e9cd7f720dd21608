"""`python -m pipeline` is `classify`."""

import sys

from pipeline.cli import main

sys.exit(main())
