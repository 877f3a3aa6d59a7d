"""The disk, which is the truth: one directory per conversation in the layout of the OpenHands SDK.

    <conversations_path>/<hex id>/
      base_state.json     the SDK's
      events/             the SDK's: event-<seq, 5+ digits>-<event id>.json
      meta.json           the published server's: what was asked at creation, title, tags, times
      snapshot.jsonl      ours: ready-made answers for readers, rebuilt at will
      event_listing       ours: the names in events/ of a long log, so that readers need not list them all
      owner.json          ours: who may write (lease_epoch) and which history this is (stream_epoch)
      inbox/              ours: accepted commands that wait to be applied

Nothing here imports the SDK; readers ship bytes.
"""
