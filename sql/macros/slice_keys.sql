-- The slices that a token, or a cell of tokens, lies in: kind and key of each; a NULL key is no slice.

create or replace macro slice_keys(
    pos_bin, tenth, prob_from, entropy_from, turn, advantage_sign, length_from, reward_from, group_number
) as [
    { 'kind': 'pos_bin', 'key': cast(pos_bin as double) },
    { 'kind': 'tenth', 'key': cast(tenth as double) },
    { 'kind': 'prob_from', 'key': cast(prob_from as double) },
    { 'kind': 'entropy_from', 'key': cast(entropy_from as double) },
    { 'kind': 'turn', 'key': cast(turn as double) },
    { 'kind': 'advantage_sign', 'key': cast(advantage_sign as double) },
    { 'kind': 'length_from', 'key': cast(length_from as double) },
    { 'kind': 'reward_from', 'key': cast(reward_from as double) },
    { 'kind': 'group_number', 'key': cast(group_number as double) }
]
