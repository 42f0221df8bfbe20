/* From any state, all honest validators restart, and the fourth is silent for ever: they finish.
 *
 * Spin asks for this in every state that can be reached. What it follows is one run of the rules, in
 * which nothing is known but what the three records hold, everything they send arrives, and the next
 * honest leader is not given up; the rounds of this run come on top of R, and nothing of it is kept.
 * That such a run exists in every state is more than "a run to the end exists" (AG EF): it is shown
 * which. Where a rule forbids a step of it, the assertion fails, and the trail shows the state from
 * which the honest cannot finish in this way.
 */
hidden byte high_, round_, top_, n_, c_, ok_;

/* --- what a record keeps: mutants leave something out --- */

#ifndef ROUND_OF            /* by the certificate of entry */
#define ROUND_OF(n) (voted[n] > given_up[n] -> voted[n] : given_up[n])
#endif
#ifndef TIMEOUT_KEPT            /* the last timeout, whole */
#define TIMEOUT_KEPT true
#endif
#ifndef COMMIT_VOTES_KEPT       /* commit votes, whole, until they are certified */
#define COMMIT_VOTES_KEPT true
#endif

inline resume() {
    /* What the records hold, together. */
    high_ = high[0];
    round_ = 1;
    top_ = certified[0];
    n_ = 0;
    do
    :: n_ < 3 ->
        if :: RND(high[n_]) > RND(high_) -> high_ = high[n_] :: else fi;
        if :: ROUND_OF(n_) > round_ -> round_ = ROUND_OF(n_) :: else fi;
        if :: certified[n_] > top_ -> top_ = certified[n_] :: else fi;
        n_++
    :: else -> break
    od;
    /* The last votes go out again; together they may order a block. */
    c_ = voted[0];
    if
    :: c_ > 0 && voted[1] == c_ && voted[2] == c_ && c_ > RND(high_) &&
       HAS(votes[0], c_) && HAS(votes[1], c_) && HAS(votes[2], c_) -> high_ = c_
    :: else
    fi;
    if :: RND(high_) >= round_ -> round_ = RND(high_) + 1 :: else fi;
    /* So do the last timeouts. */
    c_ = given_up[0];
    if
    :: TIMEOUT_KEPT && c_ >= round_ && given_up[1] == c_ && given_up[2] == c_ -> round_ = c_ + 1
    :: else
    fi;

    /* What was certified is still there: the chain goes on from it. */
    c_ = 1;
    do
    :: c_ > BLOCKS -> break
    :: c_ <= BLOCKS && !CC(c_) -> c_++
    :: else ->
        descends(high_, c_);
        assert(yes_);
        c_++
    od;

    ok_ = true;
#ifdef EPOCH
    if
    :: top_ > 0 && HAS(ending, top_) -> skip    /* they send its commit certificate: all move on */
    :: else ->
#endif
    /* All give up this round: rule 6, or they did and send that again. */
    n_ = 0;
    do
    :: n_ < 3 ->
        if
        :: given_up[n_] == round_ -> ok_ = ok_ && TIMEOUT_KEPT
        :: else -> ok_ = ok_ && given_up[n_] < round_ && voted[n_] <= round_
        fi;
        n_++
    :: else -> break
    od;
    /* Block X of the next round extends the highest certificate, block Y of the one after extends X;
     * all vote for both (rule 2), for nobody has voted in, or given up, so high a round. X and Y are
     * a two-chain. X itself is commit-voted by all (rule 4): no timeout is of a round so high. */
#ifdef EPOCH
    /* But if the chain has an ending block, the commit votes must be on that one. */
    c_ = high_;
    do
    :: c_ > 0 && !HAS(ending, c_) -> c_ = parent[c_]
    :: else -> break
    od;
    n_ = 0;
    do
    :: n_ < 3 && c_ > 0 ->
        if
        :: HAS(commits[n_], c_) -> ok_ = ok_ && COMMIT_VOTES_KEPT
        :: else ->
            rule_4(n_, c_);
            /* This round's timeout, if it is new, reports high_, which is no lower than c_. */
            if
            :: !yes_ -> ok_ = ok_ && EXEMPT((commits[n_] >> c_) == 0, true)
            :: else
            fi;
            ok_ = ok_ && OPEN(n_, c_)
        fi;
        n_++
    :: else -> break
    od;
    skip
    fi;
#endif
    assert(ok_);                /* the honest can finish */
    high_ = 0; round_ = 0; top_ = 0; n_ = 0; c_ = 0; ok_ = 0
}
