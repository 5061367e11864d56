"""`python -m smlt` is `smlt`."""

from smlt.cli.main import main

raise SystemExit(main())
