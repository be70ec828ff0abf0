"""Answers tables of any size: streamed in windows of rows, from and to files, folders and object stores."""
