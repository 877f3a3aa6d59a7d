"""Settings, secrets and profiles below `persistence_dir`, in the published server's files."""
