/* Of states that nothing can tell apart, one stands for all. For K = 1.
 *
 * After each step, what can make no difference any more is given one fixed value, and the honest
 * validators, who are interchangeable, are put in ascending order. In a trail of such a search a
 * letter is therefore a column, and who stands in it changes.
 *
 * - Who voted for an ordered block makes no difference: certificates stay.
 * - A block that fewer than two honest validators have voted for, or still can, is never ordered.
 * - A timeout of a round that no validator can leave any more by a timeout certificate only forbids
 *   its signer to commit-vote for rounds x to r; rounds in which it cannot, or has, do not count.
 * - Rules 2 and 6 compare a round with the latest of three; where a later one says it all, the
 *   earlier is raised to it, or dropped.
 */
hidden int k_, l_;
hidden byte m_, r_;

#define FREE(n, r) ((r) > voted[n] && (r) > given_up[n])    /* rule 2 may still allow a vote */

/* How many may still vote in round r, or have. */
#define VOTERS(r) (FREE(0, r) + FREE(1, r) + FREE(2, r) + \
    HAS(votes[0], r) + HAS(votes[1], r) + HAS(votes[2], r))

/* A timeout certificate of round r still opens round r + 1 to somebody. */
#define MAY_LEAVE(n, r) ((r) + 1 > given_up[n] && (r) + 1 >= voted[n])
#define OPENS(r) ((r) < R && (MAY_LEAVE(0, r) || MAY_LEAVE(1, r) || MAY_LEAVE(2, r)))

/* n may still commit-vote in round r. */
#define UNDECIDED(n, r) (!HAS(commits[n], r) && EXECUTED(r) && (parent[r] != NONE || VOTERS(r) >= VOTES_MIN))

inline forget() {
    /* Rule 2 and rule 6 look at the latest of three rounds. */
    m_ = 0;
    do
    :: m_ < 3 ->
        if :: high[m_] > given_up[m_] -> given_up[m_] = high[m_] :: else fi;
#ifdef RESTART                  /* there the last vote is sent again, and high decides where to go on */
        if :: given_up[m_] > voted[m_] -> voted[m_] = 0 :: else fi;
#else
        if :: given_up[m_] >= voted[m_] -> voted[m_] = 0 :: else fi;
        if :: given_up[m_] == R -> high[m_] = 0 :: else fi;
#endif
        m_++
    :: else -> break
    od;
    r_ = 1;
    do
    :: r_ <= R ->
        if
        :: parent[r_] != NONE && QC(r_) ->      /* who else voted for an ordered block */
            votes[0] = votes[0] | BIT(r_);
            votes[1] = votes[1] | BIT(r_);
            votes[2] = votes[2] | BIT(r_)
        :: parent[r_] != NONE && !QC(r_) && VOTERS(r_) < VOTES_MIN ->   /* will never be ordered */
            votes[0] = votes[0] & ~BIT(r_);
            votes[1] = votes[1] & ~BIT(r_);
            votes[2] = votes[2] & ~BIT(r_);
#ifdef EPOCH
            ending = ending & ~BIT(r_);
            beyond = beyond & ~BIT(r_);
#endif
            parent[r_] = NONE
        :: else
        fi;
        r_++
    :: else -> break
    od;
    /* A timeout of a round that is behind everybody only forbids commit votes. */
    r_ = 1;
    do
    :: r_ <= R ->
        if
        :: !OPENS(r_) ->
            m_ = 0;
            do
            :: m_ < 3 ->
                if
                :: TIMEOUT(m_, r_) != 0 ->
                    x_ = TIMEOUT(m_, r_);       /* it forbids rounds x_ to r_ */
                    do
                    :: x_ <= r_ && !UNDECIDED(m_, x_) -> x_++
                    :: else -> break
                    od;
                    TIMEOUT(m_, r_) = (x_ > r_ -> 0 : x_)
                :: else
                fi;
                m_++
            :: else -> break
            od;
            skip
        :: else
        fi;
        r_++
    :: else -> break
    od;
    skip
}

inline key(k, n) {
    k = (votes[n] << R) | commits[n];
    k = (k << 6) | (high[n] << 3) | voted[n];
    k = (k << 6) | (given_up[n] << 3) | certified[n];
    x_ = 1;
    do
    :: x_ <= R && x_ <= 4 -> k = k * (BLOCKS + 1) + TIMEOUT(n, x_); x_++
    :: else -> break
    od;
    skip
}

inline swap(a, b) {
    z_ = a; a = b; b = z_
}

inline ascending(m, n) {
    key(k_, m);
    key(l_, n);
    if
    :: k_ > l_ ->
        swap(votes[m], votes[n]); swap(commits[m], commits[n]); swap(high[m], high[n]);
        swap(voted[m], voted[n]); swap(given_up[m], given_up[n]);
        swap(certified[m], certified[n]);
        x_ = 1;
        do
        :: x_ <= R -> swap(TIMEOUT(m, x_), TIMEOUT(n, x_)); x_++
        :: else -> break
        od;
        skip
    :: else
    fi
}

inline normal() {
    forget();
    ascending(0, 1);
    ascending(1, 2);
    ascending(0, 1);
    skip
}
