"""`python -m tools.gpu_check`."""

from tools.gpu_check.command import main

raise SystemExit(main())
