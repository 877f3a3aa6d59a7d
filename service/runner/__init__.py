"""The runner role: owns conversations and hosts the OpenHands SDK. The only folder that imports `openhands`.

Three kinds of threads, and what may happen on each:

* the runner's own event loop (`process.Runner`): requests, leases, publishing, deciding; never blocks;
* the agent loop (`agent_loop.AgentLoop`), one per process: `LocalConversation.arun()` and nothing else, because the
  SDK's state lock is re-entrant per thread and a run holds it across awaits;
* a pool of worker threads: every other call into the SDK, since each of them may wait for that lock or the disk.
"""
