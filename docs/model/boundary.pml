/* The end of an epoch.
 *
 * Any block may be an ending block: its result names the next committee. What descends from it is
 * ordered, never executed, never commit-voted. The next epoch needs the commit certificate of the
 * ending block itself; whoever has that in its record signs nothing in this epoch any more. A block
 * of this epoch that is certified beyond it would conflict with the first of the next.
 *
 * And in every state all may restart: then they must be able to finish the epoch, or, if no ending
 * block is on the chain, to certify a new block.
 */
#define EPOCH
#define RESTART
#include "rules.pml"
