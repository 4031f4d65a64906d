# The 512-byte guest: a boot sector that speaks on COM1 and ends on command.
#
# It prints "R\n" when ready, then echoes every byte it receives and obeys these letters:
#
#   p  power off (ACPI S5)                r  reset (keyboard controller)
#   t  triple fault                       c  pvpanic: panicked
#   l  pvpanic: crash loaded (kdump)      h  hang for good (cli; hlt)
#   s  spin with interrupts off           d  arm the ib700 watchdog and never feed it
#   i  ignore the power button            w  write boot disk sector 62, answer '0' + BIOS status
#   e  eject the first PCI device that it was asked to give up
#
# The ACPI power button powers it off unless 'i' came before.
#
# Ports: 0x3f8 COM1; 0x600 PM1 status, 0x602 PM1 enable, 0x604 PM1 control (PIIX4, where SeaBIOS puts
# them on machine "pc"); 0xae04 PCI slots to be given up, 0xae08 PCI slots to be ejected (ACPI); 0x505 ISA pvpanic; 0x443 ib700; 0x64 keyboard controller.
#
# as --32 boot.S -o boot.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary boot.o -o boot.img
.code16
.globl _start
_start:
        cli
        xorw    %ax, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movw    $0x7c00, %sp
        sti
        movb    %dl, boot_drive         # the BIOS says which drive we came from
        movw    $0x3fb, %dx             # COM1: 8 bits, no parity
        movb    $3, %al
        outb    %al, %dx
        movw    $0x602, %dx             # enable the power button event
        movw    $0x100, %ax
        outw    %ax, %dx
        movb    $'R', %al
        call    put
        movb    $10, %al
        call    put

next:   movw    $0x600, %dx             # power button pressed?
        inw     %dx, %ax
        testw   $0x100, %ax
        jz      1f
        outw    %ax, %dx                # writing the bit back clears it
        movb    $'B', %al
        call    put
        cmpb    $0, ignore_button
        je      power_off
1:      movw    $0x3fd, %dx             # a byte on COM1?
        inb     %dx, %al
        testb   $1, %al
        jz      idle
        movw    $0x3f8, %dx
        inb     %dx, %al
        movb    %al, %bl
        call    put
        cmpb    $'p', %bl
        je      power_off
        cmpb    $'r', %bl
        je      reset
        cmpb    $'t', %bl
        je      triple_fault
        cmpb    $'c', %bl
        je      panicked
        cmpb    $'l', %bl
        je      crash_loaded
        cmpb    $'h', %bl
        je      hang
        cmpb    $'s', %bl
        je      spin
        cmpb    $'d', %bl
        je      arm_watchdog
        cmpb    $'e', %bl
        je      eject
        cmpb    $'i', %bl
        jne     2f
        movb    $1, ignore_button
2:      cmpb    $'w', %bl
        jne     next
        movw    $0x0301, %ax            # BIOS: write one sector,
        movw    $0x003f, %cx            # cylinder 0, sector 63 (the 62nd after ours),
        movb    $0, %dh                 # head 0,
        movb    boot_drive, %dl
        movw    $0x7c00, %bx            # from our own code
        int     $0x13
        addb    $'0', %ah
        movb    %ah, %al
        call    put
        jmp     next
idle:   hlt                             # the timer interrupt wakes us 18 times a second
        jmp     next

power_off:
        movw    $0x604, %dx
        movw    $0x2000, %ax
        outw    %ax, %dx
        jmp     hang
reset:
        movb    $0xfe, %al
        outb    %al, $0x64
        jmp     hang
triple_fault:
        cli
        lidt    no_idt
        int     $3
panicked:
        movw    $0x505, %dx
        movb    $1, %al
        outb    %al, %dx
        jmp     next
crash_loaded:
        movw    $0x505, %dx
        movb    $2, %al
        outb    %al, %dx
        jmp     next
hang:   cli
        hlt
        jmp     hang
spin:   cli
        jmp     .
eject:  movw    $0xae04, %dx            # one bit for each slot that is to be given up
        inl     %dx, %eax
        testl   %eax, %eax
        jz      next
        movb    $8, %dl
        outl    %eax, %dx
        jmp     next
arm_watchdog:
        movw    $0x443, %dx
        movb    $14, %al                # two seconds
        outb    %al, %dx
        jmp     next

put:    pushw   %ax                     # send %al when the line is free
        movw    $0x3fd, %dx
3:      inb     %dx, %al
        testb   $0x20, %al
        jz      3b
        popw    %ax
        movw    $0x3f8, %dx
        outb    %al, %dx
        ret

no_idt: .word   0
        .long   0
boot_drive:
        .byte   0
ignore_button:
        .byte   0
.org 510
.word 0xaa55
