"""What a study is: header facts, the body-part mapping, completeness. Pure: no socket, no SQL, no clock."""
