"""``python -m fastlstm_bench`` is ``fastlstm bench``."""

import sys

from fastlstm_bench.cli import main

sys.exit(main(sys.argv[1:]))
