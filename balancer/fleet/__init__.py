"""Connected agents: who they are, how many slots they have, and the calls they carry."""
