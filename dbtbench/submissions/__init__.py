"""DBTex prediction files of any number of teams: their reader and their ranking, without images."""
