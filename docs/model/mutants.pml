/* The rules, each broken in one place. `scripts/model --mutants` shows that a model notices. */

#ifdef VOTE_TWICE               /* rule 2: >= for > */
#define MAY_VOTE(n, r) ((r) >= voted[n] && (r) > given_up[n] && RND(high[n]) < (r))
#endif
#ifdef VOTE_AFTER_TIMEOUT       /* rule 2: also for a round that was given up */
#define MAY_VOTE(n, r) ((r) > voted[n] && RND(high[n]) < (r))
#endif
#ifdef NO_TIMEOUT_CERT          /* rule 2: a block may skip rounds without a timeout certificate */
#define LINKED(r, p) QC(p)
#endif
#ifdef NO_HIGH_ROUND            /* rule 2: whatever high_round the timeout certificate demands */
#define LINKED(r, p) (QC(p) && (RND(p) == (r) - 1 || TC((r) - 1, R)))
#endif
#ifdef VOTE_FORGETS             /* rule 3: the certificate is not in the record of a vote */
#define KEPT_AT_VOTE(n, h) skip
#endif
#ifdef COMMIT_VOTE_FORGETS      /* rule 4: the certificate is not in the record of a commit vote */
#define KEPT_AT_COMMIT(n, h) skip
#endif
#ifdef NO_GUARD                 /* rule 4: timeouts forbid nothing */
#define GUARD(ordered, allowed) (ordered)
#endif
#ifdef GUARD_LATE               /* rule 4: t > r for t >= r */
#define GUARD_FROM(n, r) ((r) + 1)
#endif
#ifdef GUARD_PRUNED_EARLY       /* rule 6: pairs are dropped in a record without the certificate */
#define OPEN(n, b) true
#define GUARD_FROM(n, r) ((r) > certified[n] -> (r) : certified[n] + 1)
#endif
#ifdef TWO_CHAIN_WITH_GAP       /* rule 4: any ordered descendant exempts */
#define TWO_CHAIN(d) true
#endif
#ifdef TWO_CHAIN_TIP            /* rule 4: the two-chain exempts its upper block as well */
#define EXEMPT_BELOW(d) (d)
#endif
#ifdef NO_EXEMPTION             /* rule 4: the two-chain exempts from nothing */
#define EXEMPT(ordered, proved) false
#endif
#ifdef COMMIT_VOTES_RISE        /* rule 4: never below the last commit vote */
#define EXEMPT(ordered, proved) (ordered && proved)
#endif
#ifdef TIMEOUT_BELOW            /* rule 6: reports less than it knows */
#define MAY_REPORT(n, r, h) (QC(h) && (QC((r) - 1) || TC((r) - 1, R)))  /* K = 1 */
#define KEPT_AT_TIMEOUT(n, h) high[n] = (RND(h) > RND(high[n]) -> (h) : high[n])
#endif
#ifdef TWO_VOTES_ORDER          /* q = 2 */
#define VOTES_MIN 1
#endif
#ifdef TWO_TIMEOUTS_ENTER       /* q = 2 */
#define TIMEOUTS_MIN 1
#endif
#ifdef TWO_COMMIT_VOTES_CERTIFY /* q = 2 */
#define COMMITS_MIN 1
#endif
#ifdef COMMIT_BEYOND            /* epochs: descendants of an ending block are commit-voted */
#define EXECUTED(b) true
#endif
#ifdef ENTRY_FORGOTTEN          /* the record lacks the certificate by which the round was entered */
#define ROUND_OF(n) (RND(high[n]) + 1)
#endif
#ifdef TIMEOUT_FORGOTTEN        /* the record has the pair, not the signed timeout */
#define TIMEOUT_KEPT false
#endif
#ifdef COMMIT_VOTES_FORGOTTEN   /* the record has their rounds, not the signed commit votes */
#define COMMIT_VOTES_KEPT false
#endif
