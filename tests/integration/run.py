#!/usr/bin/env python3
"""Runs the integration tests in the rig that the environment names, says what it does, and leaves the counts in a file.

Each test has a limit of its own (attribute `limit` of the test's class or function, in seconds): one that hangs is a failure, not the end of the run."""
import argparse
import fnmatch
import json
import os
import signal
import sys
import time
import traceback
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_LIMIT = 120


class Expired(BaseException):
    """Not an Exception: no handler in a test may swallow it."""


def all_tests(suite):
    for t in suite:
        if isinstance(t, unittest.TestSuite):
            yield from all_tests(t)
        else:
            yield t


class Result(unittest.TestResult):
    def __init__(self, total):
        super().__init__()
        self.total, self.number, self.passed, self.failed, self.skipped_count = total, 0, 0, 0, 0
        self.failed_tests = []

    def startTest(self, test):
        super().startTest(test)
        self.number += 1
        self.began = time.monotonic()
        self.outcome = "ok"
        self.detail = ""
        limit = getattr(getattr(test, test._testMethodName, None), "limit", getattr(test, "limit", DEFAULT_LIMIT))
        signal.alarm(limit)

    def stopTest(self, test):
        signal.alarm(0)
        took = time.monotonic() - self.began
        if self.outcome == "ok":
            self.passed += 1
        elif self.outcome == "skipped":
            self.skipped_count += 1
        print(f"{self.outcome:<7} {test.id()} ({self.number}/{self.total}, {took:.1f} s){': ' + self.detail if self.outcome == 'skipped' else ''}")
        if self.outcome == "FAILED":
            print(self.detail, end="")
        sys.stdout.flush()
        super().stopTest(test)

    def bad(self, test, err):
        # Counted here and not in stopTest: a failing setUpClass has neither start nor stop.
        self.failed += 1
        self.failed_tests.append(test.id())
        self.outcome = "FAILED"
        text = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in "".join(traceback.format_exception(*err)).rstrip())
        self.detail = "".join("        | " + line + "\n" for line in text.split("\n"))
        if not hasattr(test, "_testMethodName"):
            print(f"FAILED  {test.id()}\n{self.detail}", end="", flush=True)

    def addError(self, test, err):
        if self.outcome_open():
            self.bad(test, err)

    def addFailure(self, test, err):
        if self.outcome_open():
            self.bad(test, err)

    def addSubTest(self, test, subtest, err):
        if err is not None:
            print(f"        {subtest._subDescription()}: failed")
            first = self.outcome_open()
            if first:
                self.bad(test, err)
            else:
                self.detail += f"        | and {subtest._subDescription()}: {err[1]}\n"

    def outcome_open(self):
        return getattr(self, "outcome", "ok") != "FAILED" or not self.number

    def addSkip(self, test, reason):
        self.outcome, self.detail = "skipped", reason
        if not hasattr(test, "_testMethodName"):
            self.skipped_count += 1
            print(f"skipped {test.id()}: {reason}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--results")
    p.add_argument("--pattern", default="", help="only tests whose id contains it (or matches it as a glob)")
    p.add_argument("--list", action="store_true")
    args = p.parse_args()
    sys.path.insert(0, HERE)
    loader = unittest.TestLoader()
    tests = list(all_tests(loader.discover(HERE, pattern="test_*.py", top_level_dir=HERE)))
    if args.pattern:
        tests = [t for t in tests if args.pattern in t.id() or fnmatch.fnmatch(t.id(), args.pattern)]
    if args.list:
        for t in tests:
            print(t.id())
        return 0

    def expire(_signo, _frame):
        # A subTest takes even this for its own failure and goes on: again, until the test is over.
        signal.alarm(2)
        raise Expired("the test's time limit")

    result = Result(len(tests))

    def stop(_signo, _frame):
        result.stop()
        signal.alarm(1)
        raise Expired("stopped by a signal")
    signal.signal(signal.SIGALRM, expire)
    signal.signal(signal.SIGTERM, stop)
    suite = unittest.TestSuite(tests)

    def save():
        if args.results:
            with open(args.results, "w", encoding="utf-8") as f:
                json.dump({"passed": result.passed, "failed": result.failed, "skipped": result.skipped_count, "failed_tests": result.failed_tests}, f)
    try:
        suite.run(result)
    except Expired:
        # Fell into a class's set-up or tear-down.
        result.failed += 1
        traceback.print_exc()
    finally:
        signal.alarm(0)
        save()
    if not tests:
        print("no test matches")
    return 0 if result.failed == 0 and tests else 1


sys.exit(main())
