"""File systems, whole outputs, JSON files, HDFS and object stores."""
