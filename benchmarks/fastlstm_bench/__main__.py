"""``python -m fastlstm_bench`` is ``fastlstm bench``."""

import sys

from fastlstm.cli import main

sys.exit(main(["bench", *sys.argv[1:]]))
