/* What the three models share: what was signed, what that proves, and what may be signed.
 *
 * Validators 0, 1 and 2 are honest; the fourth signs whatever its key can sign, and nobody else's
 * messages can be forged. A block is a number: block b is of round RND(b), 0 is genesis, and K
 * blocks of a round can come up. Who leads does not matter: every leader may propose what it likes.
 *
 * Whatever was sent arrives at any time, or never, and the fourth relays and adds what it likes. So
 * the network is the set of what was signed, and a certificate is there, for whoever the network
 * shows it to, as soon as its honest signatures are: the fourth adds one more, on any block, in any
 * round, reporting any certificate.
 *
 * A validator is what its disk holds. In the moment in which it signs, it may know of any
 * certificate that exists, or of none but those in its record; the record that is durable before
 * the signature leaves holds what it knew. In the next moment it may have forgotten all else. So
 * every crash, of one or of all, at any point between signatures, is in every run, and no step of
 * its own.
 *
 * Rule numbers are those of docs/consensus.md. Names in capitals that are defined with #ifndef are
 * where a mutant breaks a rule, or where a bound is set; see README.md.
 */
#include "mutants.pml"
#ifndef R
#define R 3                     /* rounds: 1 to R, at most 6 */
#endif
#ifndef K
#define K 1                     /* blocks of one round, 1 or 2 */
#endif
#ifndef ACTIVE
#define ACTIVE 3                /* honest validators that act; mutants need no more than 2 */
#endif
#define BLOCKS (R * K)          /* at most 8 */
#define NONE 255
#define RND(b) (((b) + K - 1) / K)
#define LAST(r) ((r) * K)       /* the last block of a round */
#define HAS(mask, b) (((mask) >> ((b) - 1)) & 1)
#define BIT(b) (1 << ((b) - 1))

/* --- what was signed, and what each record holds --- */

byte parent[BLOCKS + 1] = NONE; /* of each block; NONE while nobody has voted for it */
byte votes[3];                  /* of each validator: a bit a block */
byte commits[3];                /* commit votes: a bit a block */
byte timeouts[3 * R];           /* 0, or 1 + the block whose certificate was reported */
byte high[3];                   /* block of the highest quorum certificate in the record */
byte voted[3];                  /* last round voted in */
byte given_up[3];               /* last round given up */
byte certified[3];              /* round of the newest commit certificate in the record */
#ifdef EPOCH
byte ending;                    /* blocks whose result names a next committee: a bit a block */
byte beyond;                    /* blocks that descend from such a one */
#endif

/* Scratch within one step, no part of a state; for want of "hidden" in breadth-first search, zeroed. */
#ifdef BREADTH_FIRST
#define hidden
#define ZERO_SCRATCH x_ = 0; y_ = 0; z_ = 0; yes_ = 0
#else
#define ZERO_SCRATCH skip
#endif
hidden byte x_, y_, z_, yes_;

/* --- what it proves (rules 3, 5, 7) --- */

/* Signatures of the honest that make a certificate: q - f. */
#ifndef VOTES_MIN
#define VOTES_MIN 2
#endif
#ifndef TIMEOUTS_MIN
#define TIMEOUTS_MIN 2
#endif
#ifndef COMMITS_MIN
#define COMMITS_MIN 2
#endif

#define TIMEOUT(n, r) timeouts[(n) * R + (r) - 1]
#define REPORTED(n, r) RND(TIMEOUT(n, r) - 1)

#define QC(b) ((b) == 0 || \
    HAS(votes[0], b) + HAS(votes[1], b) + HAS(votes[2], b) >= VOTES_MIN)
#define CC(b) (HAS(commits[0], b) + HAS(commits[1], b) + HAS(commits[2], b) >= COMMITS_MIN)

/* A timeout certificate of round r whose highest reported round is at most x. */
#define LOW(n, r, x) (TIMEOUT(n, r) != 0 && REPORTED(n, r) <= (x))
#define TC(r, x) (LOW(0, r, x) + LOW(1, r, x) + LOW(2, r, x) >= TIMEOUTS_MIN)

/* Round r can be entered by one whose highest certificate is of round x (rule 8). */
#define ENTERED(r, x) ((x) == (r) - 1 || TC((r) - 1, x))

/* yes_ = block low is block top or an ancestor of it. */
inline descends(top, low) {
    x_ = top;
    do
    :: RND(x_) > RND(low) -> x_ = parent[x_]
    :: else -> break
    od;
    yes_ = (x_ == low)
}

#ifndef TWO_CHAIN               /* of an ordered block d: is the chain up to its parent committed? */
#define TWO_CHAIN(d) (RND(d) == RND(parent[d]) + 1)
#endif
#ifndef EXEMPT_BELOW            /* the highest block that this exempts */
#define EXEMPT_BELOW(d) parent[d]
#endif

/* yes_ = block b is proved committed: it or a descendant has an ordered child of the next round.
 * A block that somebody voted for has an ordered parent. */
inline two_chain(b) {
    yes_ = false;
    y_ = LAST(RND(b) - 1) + 1;
    do
    :: y_ <= BLOCKS && !yes_ ->
        if
        :: parent[y_] != NONE && QC(y_) && TWO_CHAIN(y_) -> descends(EXEMPT_BELOW(y_), b)
        :: else
        fi;
        y_++
    :: else -> break
    od;
    skip
}

/* --- what may be signed --- */

/* Rule 3: what is known never falls behind the record; one certificate a round is kept. */
#define KNOWS(n, h) (QC(h) && (RND(h) > RND(high[n]) || (h) == high[n]))

#ifdef EPOCH                    /* nothing is signed in an epoch that has ended */
#define IN_EPOCH(n) (certified[n] == 0 || !HAS(ending, certified[n]))
#else
#define IN_EPOCH(n) true
#endif

/* Rule 2, of the voter. */
#ifndef MAY_VOTE
#define MAY_VOTE(n, r) ((r) > voted[n] && (r) > given_up[n] && RND(high[n]) < (r))
#endif
/* Rule 2, of the block: parent ordered; round entered by its certificate or a timeout certificate. */
#ifndef LINKED
#define LINKED(r, p) (QC(p) && ENTERED(r, RND(p)))
#endif
/* Rule 6. */
#ifndef MAY_GIVE_UP
#define MAY_GIVE_UP(n, r) ((r) > given_up[n] && (r) >= voted[n] && RND(high[n]) < (r))
#endif
#ifndef MAY_REPORT
#define MAY_REPORT(n, r, h) (KNOWS(n, h) && ENTERED(r, RND(h)))
#endif
/* Rule 4, but for the timeouts: one statement a round, none that is certified already. */
#ifndef OPEN
#define OPEN(n, b) (RND(b) > certified[n])
#endif
#ifdef EPOCH
#ifndef EXECUTED                /* descendants of an ending block are never executed */
#define EXECUTED(b) (!HAS(beyond, b))
#endif
#else
#define EXECUTED(b) true
#endif
#define COMMITS_OF(n, r) ((commits[n] >> LAST((r) - 1)) & (BIT(K + 1) - 1))
#define MAY_COMMIT(n, b) \
    (QC(b) && OPEN(n, b) && EXECUTED(b) && COMMITS_OF(n, RND(b)) == 0)
/* Rule 4: no timeout (t, high_round) with t >= r reports less than r. */
#ifndef GUARD_FROM              /* the first such t */
#define GUARD_FROM(n, r) (r)
#endif
#ifndef GUARD                   /* rounds commit-voted are in order, and every timeout allows it */
#define GUARD(ordered, allowed) (ordered && allowed)
#endif
#ifndef EXEMPT                  /* what the two-chain proof exempts from */
#define EXEMPT(ordered, proved) (proved)
#endif

/* yes_ = rule 4 lets n commit-vote for b; z_ is scratch. */
inline rule_4(n, b) {
    z_ = RND(b);
    yes_ = true;
    x_ = GUARD_FROM(n, z_);
    do
    :: x_ <= R && yes_ -> yes_ = (TIMEOUT(n, x_) == 0 || REPORTED(n, x_) >= z_); x_++
    :: else -> break
    od;
    z_ = (commits[n] >> LAST(RND(b))) == 0;
    yes_ = GUARD(z_, yes_);
    if
    :: !yes_ ->
        two_chain(b);
        yes_ = EXEMPT(z_, yes_)
    :: else
    fi
}

/* --- what must hold (rule 5) --- */

/* Called when b was commit-voted: certified blocks are of one chain, which an ending block ends. */
inline agreement(b, c) {
    if
    :: CC(b) ->
        c = 1;
        do
        :: c > BLOCKS -> break
        :: c <= BLOCKS && (!CC(c) || c == b) -> c++
        :: else ->
            if
            :: RND(c) > RND(b) -> descends(c, b)
            :: else -> descends(b, c)
            fi;
            assert(yes_);       /* no two commit certificates on conflicting blocks */
#ifdef EPOCH
            assert(!HAS(ending, (RND(c) > RND(b) -> b : c)));   /* the next epoch begins after it */
#endif
            c++
        od
    :: else
    fi
}

#ifdef REDUCED
#include "reduced.pml"
#else
inline normal() {
    skip
}
#endif

#ifdef RESTART
#include "restart.pml"
#endif

/* --- the steps --- */

/* One option a block, or a block up to the last of round r - 1. */
#define EACH(may, to) EACH_1(may, to) EACH_2(may, to) EACH_3(may, to) EACH_4(may, to) \
    EACH_5(may, to) EACH_6(may, to) EACH_7(may, to) EACH_8(may, to)
#define EACH_1(may, to) :: may(1) -> b = 1; goto to
#if BLOCKS > 1
#define EACH_2(may, to) :: may(2) -> b = 2; goto to
#else
#define EACH_2(may, to)
#endif
#if BLOCKS > 2
#define EACH_3(may, to) :: may(3) -> b = 3; goto to
#else
#define EACH_3(may, to)
#endif
#if BLOCKS > 3
#define EACH_4(may, to) :: may(4) -> b = 4; goto to
#else
#define EACH_4(may, to)
#endif
#if BLOCKS > 4
#define EACH_5(may, to) :: may(5) -> b = 5; goto to
#else
#define EACH_5(may, to)
#endif
#if BLOCKS > 5
#define EACH_6(may, to) :: may(6) -> b = 6; goto to
#else
#define EACH_6(may, to)
#endif
#if BLOCKS > 6
#define EACH_7(may, to) :: may(7) -> b = 7; goto to
#else
#define EACH_7(may, to)
#endif
#if BLOCKS > 7
#define EACH_8(may, to) :: may(8) -> b = 8; goto to
#else
#define EACH_8(may, to)
#endif

#define IS_VOTE(c) (MAY_VOTE(n, RND(c)) && (parent[c] != NONE || \
    RND(c - 1) < RND(c) || parent[c - 1] != NONE))
#define IS_TIMEOUT(c) (c <= R && MAY_GIVE_UP(n, c))
#define IS_COMMIT(c) (MAY_COMMIT(n, c))
#ifdef FORGETFUL
#define IS_LEARNT(c) false
#else
#define IS_LEARNT(c) (CC(c) && RND(c) > certified[n])
#endif

/* The certificate known when voting, or commit-voting, for a block: any of rounds x to last; with
 * FORGETFUL the lowest. */
inline know(n, x, last) {
#ifdef FORGETFUL
    h = (RND(x) > RND(high[n]) -> x : high[n]);
    skip
#else
    h = x;
    do
    :: h < last -> h++
    :: RND(h) >= RND(x) && KNOWS(n, h) -> break
    :: h >= last && !KNOWS(n, h) -> goto done
    od;
    skip
#endif
}

#ifndef KEPT_AT_VOTE
#define KEPT_AT_VOTE(n, h) high[n] = h
#endif
#ifndef KEPT_AT_TIMEOUT
#define KEPT_AT_TIMEOUT(n, h) high[n] = h
#endif
#ifndef KEPT_AT_COMMIT
#define KEPT_AT_COMMIT(n, h) high[n] = h
#endif

active proctype validators() {
    byte n, b, p, h;
step:
    atomic {
        if
        :: IN_EPOCH(0) -> n = 0
        :: IN_EPOCH(1) -> n = 1
        :: ACTIVE > 2 && IN_EPOCH(2) -> n = 2
#ifdef RESTART
        :: true -> goto restart
#endif
        fi;
        if
        EACH(IS_VOTE, vote)
        EACH(IS_TIMEOUT, give_up)
        EACH(IS_COMMIT, commit)
        EACH(IS_LEARNT, learn)
        :: else -> goto done
        fi;

vote:   if
        :: parent[b] != NONE -> p = parent[b]
        :: else ->
            do
            :: p < LAST(RND(b) - 1) -> p++
            :: LINKED(RND(b), p) -> break
            :: p == LAST(RND(b) - 1) && !LINKED(RND(b), p) -> goto done
            od;
#ifdef EPOCH
            if
            :: p > 0 && (HAS(ending, p) || HAS(beyond, p)) -> beyond = beyond | BIT(b)
            :: else ->
                if
                :: ending = ending | BIT(b)
                :: skip
                fi
            fi
#endif
        fi;
        know(n, p, LAST(RND(b) - 1));
        d_step {
            printf("%c votes for block %d on %d, holding certificate %d\n", 'A' + n, b, p, h);
            votes[n] = votes[n] | BIT(b);
            parent[b] = p;
            voted[n] = RND(b);
            KEPT_AT_VOTE(n, h)
        }
        goto signed;

give_up:
        do
        :: h < LAST(b - 1) -> h++
        :: MAY_REPORT(n, b, h) -> break
        :: h == LAST(b - 1) && !MAY_REPORT(n, b, h) -> goto done
        od;
        skip;
        d_step {
            printf("%c gives up round %d, reporting certificate %d\n", 'A' + n, b, h);
            TIMEOUT(n, b) = h + 1;
            given_up[n] = b;
            KEPT_AT_TIMEOUT(n, h)
        }
        goto signed;

commit: know(n, b, BLOCKS);
        d_step {
            rule_4(n, b);
            if
            :: yes_ ->
                printf("%c commit-votes for block %d, holding certificate %d\n", 'A' + n, b, h);
                commits[n] = commits[n] | BIT(b);
                KEPT_AT_COMMIT(n, h);
                agreement(b, p)
            :: else
            fi
        }
        goto signed;

learn:  skip;
        d_step {
            printf("%c learns the commit certificate of block %d\n", 'A' + n, b);
            certified[n] = RND(b)
        }

signed: skip;
        d_step {
            normal();
            ZERO_SCRATCH
        }
done:   n = 0; b = 0; p = 0; h = 0
#ifdef RESTART
        goto step;
restart:
        skip;
        d_step {
            resume();
            ZERO_SCRATCH
        }
#endif
    }
    goto step
}
