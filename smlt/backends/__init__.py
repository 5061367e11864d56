"""Where jobs run and where their bytes are: one folder a provider, and the stores and channels that providers share."""
