// Package carriertest tests carriers.
package carriertest
