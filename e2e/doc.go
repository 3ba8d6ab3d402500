// Package e2e has tests that drive gochat as it is shipped: images, containers and a network, from outside.
//
// The tests have the build tag e2e and want a Docker engine, and root, since they cut networks and step clocks:
//
//	make e2e                  # all of them
//	make e2e RUN=pause        # those whose name has it
//
// One list of scenarios runs against `gochat up` in one container and against docker/compose.yml with two of each layer. Then the
// latter is broken, in every way that the packages' own tests cannot: see faults_test.go. While it is, people chat (package load), and a
// checker (package checker) must find that nothing that was acknowledged is lost, doubled, out of order or in another's name.
//
// What a failed run leaves is in e2e/artifacts: the log of every container, what /readyz and /metrics said, and the traces.
package e2e
