"""Everything needed to act: observation preprocessing, network, action rule, spaces, env."""
