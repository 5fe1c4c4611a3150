-- 97.5 % quantile of Student's t with df >= 1 degrees of freedom, whole or not: half the width of a 95 %
-- interval in standard errors. A polynomial in 1 / df that is right to 2e-5 (fitted) and one step of Newton's
-- method, of ln p over ln t. Off by less than 1e-9 of it for df up to 1,000,000 (against SciPy, 2026-11).

create or replace macro student_t_quantile_975(df) as
list_transform(
    [
        1.959963984540054 * exp(
            (1.210246 + (0.707081 + (0.169527 + (-0.319621 + 0.101945 / df) / df) / df) / df) / df
        )
    ],
    lambda t: t * exp(
        ln(student_t_p_value(t, df) / 0.05) * student_t_p_value(t, df) / 2 / t
        / exp(lgamma((df + 1) / 2) - lgamma(df / 2) - (df + 1) / 2 * ln(1 + t * t / df))
        * sqrt(pi() * df)
    )
)[1]
