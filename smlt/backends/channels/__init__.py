"""Channels that several backends offer: fast ways for ranks to exchange values."""
