"""Benchmarks, each a module with ``main(arguments, as_json)``; ``streammem bench`` lists and runs them."""
