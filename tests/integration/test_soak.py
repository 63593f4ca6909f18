"""Ten rounds of the long run (`make soak` does 200): dockerd restarted and killed, rules flushed and deleted, under probing from inside real servers."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
from host import Host  # noqa: E402
from soak import Soak  # noqa: E402


class Rounds(unittest.TestCase):
    limit = 400

    def test_ten_rounds(self):
        with Host() as host:
            soak = Soak(host, report=lambda text: print(f"        {text.strip()}", flush=True))
            soak.set_up()
            soak.run(10)
            self.assertEqual(soak.failures, [])
            self.assertGreater(sum(p.sent for p in soak.probers), 5000)
