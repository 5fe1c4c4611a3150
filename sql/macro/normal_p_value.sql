-- Two-sided p-value of a standard normal z (Abramowitz and Stegun 1964, 7.1.26; off by at most 2e-7).

create or replace macro normal_p_value(z) as
exp(-z * z / 2) * (
    0.254829592 / (1 + 0.3275911 * abs(z) / sqrt(2))
    - 0.284496736 / pow(1 + 0.3275911 * abs(z) / sqrt(2), 2)
    + 1.421413741 / pow(1 + 0.3275911 * abs(z) / sqrt(2), 3)
    - 1.453152027 / pow(1 + 0.3275911 * abs(z) / sqrt(2), 4)
    + 1.061405429 / pow(1 + 0.3275911 * abs(z) / sqrt(2), 5)
)
