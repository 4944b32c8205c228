# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The text that `cargo test` prints -> one line "VERDICT CRATE: TEST" for each test; VERDICT is ok, FAILED or ignored.
# Ends with 1 if a summary of libtest counts other tests than were seen (a line was lost or garbled), or there was none.

/^ +Running / {
	crate = $NF
	sub(/^.*\//, "", crate)
	sub(/-[0-9a-f]+\)$/, "", crate)
}

/^ +Doc-tests / { crate = $2 " documentation" }

/^test .* \.\.\. (ok|FAILED|ignored)/ {
	name = $0
	sub(/^test /, "", name)
	verdict = name
	sub(/^.* \.\.\. /, "", verdict)
	# What a program that a test runs writes may stand right behind it.
	match(verdict, /^(ok|FAILED|ignored)/)
	verdict = substr(verdict, 1, RLENGTH)
	sub(/ \.\.\. (ok|FAILED|ignored).*$/, "", name)
	print verdict, crate ": " name
	seen[verdict]++
}

/^test result: / {
	summaries++
	match($0, /[0-9]+ passed/)
	passed = substr($0, RSTART) + 0
	match($0, /[0-9]+ failed/)
	failed = substr($0, RSTART) + 0
	if (passed != seen["ok"] + 0 || failed != seen["FAILED"] + 0)
		wrong = 1
	delete seen
}

END { exit wrong || !summaries }
