// Command hits passes two places three times and says how far it came; failpoint_test.go builds it both ways.
package main

import (
	"fmt"

	"github.com/keyturn/keyturn/internal/failpoint"
)

func main() {
	for i := range 3 {
		fmt.Println("hit", i+1)
		failpoint.Hit("test/place")
		failpoint.Hit("test/other")
	}
	fmt.Println("end")
}
