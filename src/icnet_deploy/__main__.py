"""`python -m icnet_deploy` is `icnet`."""

from icnet_deploy.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
