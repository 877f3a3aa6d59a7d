"""The disk, which is the truth: one directory per conversation in the layout of the OpenHands SDK.

    <conversations_path>/<hex id>/
      base_state.json     the SDK's
      events/             the SDK's: event-<seq, 5+ digits>-<event id>.json
      meta.json           the published server's: what was asked at creation, title, tags, times
      snapshot.jsonl      ours: ready-made answers for readers, rebuilt at will
      event_listing       ours: the names in events/ of a long log, so that readers need not list them all
      owner.json          ours: who may write (lease_epoch) and which history this is (stream_epoch)
      inbox/              ours: accepted commands that wait to be applied
      goal.json           ours: what the agent works for, and how far it is
      children/           ours: which conversations were started from this one
      webhooks/           ours: how far each receiver has been told
      bash_events/        ours: shell commands that were run for this conversation
    <conversations_path>/.secret_key, .dead_letters/, .credential_bindings/
                          ours: what encrypts secrets where no key is configured; letters that no receiver took;
                          credentials that conversations use
    <conversations_path>/.deleted-*, .fork-*
                          ours: no conversation any more, or not yet (`store.leftovers`)

Nothing here imports the SDK; readers ship bytes.
"""
