"""``python -m bertfast`` is the command ``bertfast``."""

import sys

from bertfast.cli import main

sys.exit(main())
