"""The command line: one file a verb. Commands import what they need when they run, so that `smlt --help` is quick."""
