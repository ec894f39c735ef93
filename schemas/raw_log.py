"""The raw Ali-CCP logs: two headerless text files, joined by `common_feature_index`.

    sample_skeleton  sample_id,click,conversion,common_feature_index,feature_num,feature_list
    common_features  common_feature_index,feature_num,feature_list

`feature_list` holds features separated by 0x01; one feature is `field 0x02 feature_id 0x03 value`.
`common_feature_index` is 16 hexadecimal digits. Lines end with a single line feed. A value is checked
everywhere, but samples keep those of the weighted fields only (`schemas.fields`): in all others Ali-CCP
has 1.0, and another one is dropped without being counted.
"""

FEATURE_SEPARATOR = b"\x01"
ID_SEPARATOR = b"\x02"
VALUE_SEPARATOR = b"\x03"

# Why a line is quarantined. The position in this tuple is the code the compiled parser returns,
# 0 meaning a good line: append, never reorder.
QUARANTINE_REASONS: tuple[str, ...] = (
    "",
    "wrong_column_count",
    "bad_number",
    "bad_label",
    "conversion_without_click",
    "bad_context_id",
    "empty_id",
    "bad_feature",
    "unknown_field",
    "field_on_wrong_side",
    "repeated_single_field",
    "feature_count_mismatch",
    "truncated_line",
    "no_common_record",
    "duplicate_common_record",
    "line_too_long",
    "duplicate_sample_id",
    "null_key",
    "lengths_differ",
    "bad_weight",
    "id_too_long",
    "other_context_row",
    "action_without_click",
)

REASON_MEANING: dict[str, str] = {
    "wrong_column_count": "expected 6 (skeleton) or 3 (common) comma-separated columns",
    "bad_number": "sample_id or feature_num is not a whole number below 10^18; in a table, a sample_id or "
    "user_id that is to be kept as a number is negative, or a numeric field is infinite or no number",
    "bad_label": "click, conversion or an action is neither 0 nor 1",
    "conversion_without_click": "click=0 with conversion=1 contradicts the definition of CVR",
    "bad_context_id": "common_feature_index is not 16 hexadecimal digits",
    "empty_id": "a feature, or an element of a list, without an id",
    "bad_feature": "a feature is not field 0x02 id 0x03 value, with a whole id below 10^18 and a finite "
    "decimal value >= 0 (1.5, .5, 1e-05, no sign)",
    "unknown_field": "a field that the schema does not have",
    "field_on_wrong_side": "a user field in the skeleton or an impression field in the common file",
    "repeated_single_field": "a single-valued field with more than one value",
    "feature_count_mismatch": "feature_num differs from the number of features in the line",
    "truncated_line": "the last line of the file does not end with a line feed and is incomplete",
    "no_common_record": "the skeleton's common_feature_index is not in the common file",
    "duplicate_common_record": "a second common record with the same common_feature_index",
    "line_too_long": "a line of more than 8 MiB; its first 1024 bytes are kept here",
    "duplicate_sample_id": "a second impression of the same context with the same sample_id",
    "null_key": "a row of a table without the id of its context or impression",
    "lengths_differ": "a list whose weights are more or fewer than its ids",
    "bad_weight": "a weight that is null, negative, infinite or no number",
    "id_too_long": "an id of more than 1 MiB",
    "other_context_row": "a context that another row of a table describes in another way",
    "action_without_click": "click=0 with an action of 1, such as putting into a cart",
}
