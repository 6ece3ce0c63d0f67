"""A loopback server that speaks both providers' wires and renders real MP4 files, for work without a key.

Layers, top to bottom: `serve` (running it) > `wire` (the one app) > `runflow` | `runcomfy` (a wire each) >
`media`, `checks` > `desk` (what the wires share) > `runs` (the state machine), `bodies`, `asked` > `replies`
> `faults` > `switches`, and `clips` > `render` > `canvas`. Nothing here imports the adapters or any
other part of `kling_nb`: the sandbox is written from the contracts alone, because it is the judge of the
adapters.
"""
