"""Speed and memory, ours and the reference's side by side in one run."""
