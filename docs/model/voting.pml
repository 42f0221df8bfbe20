/* Can two commit certificates be on conflicting blocks?
 *
 * Votes, commit votes with the timeout guard and the two-chain exemption, timeouts, loss of whatever
 * was not durable. The answer is the assertion in rules.pml, "agreement".
 */
#include "rules.pml"
