"""The parts of test/bench/run."""
