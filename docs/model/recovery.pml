/* Everybody restarts, at any point: is what was certified still there, and can they go on?
 *
 * The rules of "voting", and in every state a restart of all honest validators with nothing but
 * what their records hold (restart.pml).
 */
#define RESTART
#include "rules.pml"
