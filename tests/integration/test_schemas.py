"""Our subset of JSON Schema beside a reference from npm: wherever ours takes a schema, both say the same of every value."""
import json
import os
import pathlib
import unittest

from rig import TOP, rig, run

BUILD = pathlib.Path(os.environ.get("BULKHEAD_BUILD", TOP))
SEED = os.environ.get("SCHEMAS_SEED", "4")


class Schemas(unittest.TestCase):
    limit = 240

    def test_same_verdicts_as_the_reference(self):
        npm = pathlib.Path(rig().env["RIG_NPM"])
        done = run(npm / "node", TOP / "tests/integration/schemas.mjs", npm, BUILD / "tests/integration/schema_check", SEED, timeout=200)
        report = json.loads(done.stdout)
        self.assertEqual(report["wrong"], [], f"seed {SEED}")
        # The servers' own schemas must all be understood, and the comparison must have been one.
        self.assertGreater(report["tools"], 20, report)
        self.assertEqual(report["tools_refused"], 0, report)
        self.assertGreater(report["schemas"], 500, report)
        self.assertGreater(report["fitting"], report["values"] // 10, report)


if __name__ == "__main__":
    unittest.main()
