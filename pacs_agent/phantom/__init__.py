"""Digital phantoms: synthetic radiographs and studies for the demo, the tests and the benchmarks."""
