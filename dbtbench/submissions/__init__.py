"""DBTex prediction files of any number of teams: reading and ranking, without images."""
