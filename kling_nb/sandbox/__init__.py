"""A loopback server that speaks both providers' wires and renders real MP4 files, for work without a key.

Layers, top to bottom: `serve` (running it) > `app` (the one application) > `runflow` | `runcomfy` (a wire
each) > `downloads`, `validation` > `state` (what the wires share) > `bodies` > `replies` > `runs` (the state
machine), `faults` > `render`. Nothing here imports any other part of `kling_nb`: the sandbox is written from
the contracts alone, because it is the judge of the adapters.
"""
