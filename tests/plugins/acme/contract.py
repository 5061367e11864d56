"""smlt's published suite on this package; run in the environment where it is installed: `pytest contract.py`."""

from acme_smlt.backend import AcmeBackend, AcmeLauncher, AcmeOptions

from smlt.testing import BackendContract


class TestAcme(BackendContract):
    def make_backend(self):
        return AcmeBackend("acme", AcmeOptions())

    def make_launcher(self, backend, place, entry):
        return AcmeLauncher(place, entry)
